"""STUB for testing until the real one is here: overwrite me."""
import json, sys
from dataclasses import dataclass
from pagescan.units import format_time
from pagescan import __version__
@dataclass(frozen=True)
class Output:
    format: str="plain"; columns: str|None=None; header: bool=True; exact: bool=False; by: str="region"; color: bool|None=None
def target_keys(t): return {"pid":t.pid,"name":t.name,"exe":t.exe,"start_time":t.start_time,"page_size":t.page_size}
def document(kind, **keys): return {"schema":"pagescan/1","kind":kind,"version":__version__,**keys}
def write_document(d, *a): print(json.dumps(d))
def write_rows(head, rows, output):
    print(*head); [print(*r) for r in rows]
def write_result(report, rows, output):
    if output.format=="json":
        d=document(report.kind,target=target_keys(report.target),summary=vars_(report.summary),cost=vars_(report.cost),untracked=len(report.untracked))
        if isinstance(rows,list): d["mappings"]=[(m.mapping.label,m.counts) for m in rows]
        else: d["regions"]=[(hex(r.start),hex(r.end),r.pages,r.categories.names,r.mapping and r.mapping.label,r.new) for r in rows.regions()]
        print(json.dumps(d)); return
    if isinstance(rows,list):
        for m in rows: print(hex(m.mapping.start),m.pages,m.counts,m.mapping.label)
    else:
        for r in rows.regions(): print(hex(r.start),hex(r.end),r.pages,",".join(r.categories.names),r.mapping and r.mapping.label,"new" if r.new else "")
def vars_(x):
    from dataclasses import asdict
    return asdict(x)
