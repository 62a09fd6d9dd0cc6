"""Points at sentences with habits that make prose hard to read: advice, never an error.

It reads comments, docstrings, help and messages in Python files, comments in C files,
the documents and the manual page. CONTRIBUTING.md says what to write instead.

    check_prose.py            all files of the project
    check_prose.py FILE...    these files
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

_UNITS = (
    "byte|bit|page|region|mapping|range|line|row|column|look|tick|thread|process|call"
    "|key|file|word|sentence|slice|unit|session|target|argument|option"
    "|set|test|name|object|field|entry|item|part|kind|round|run|descriptor|processor"
)
_JOINS = (
    "of|in|at|on|for|to|by|from|with|without|is|as|per|than|over|when|if|or|and|not|has"
    "|had|was|are|into|inside|within|behind|before|after|until|where|makes|but|that|which"
    "|under|through|beside|like|between|while|gives|gave|give|be|about|takes|its|against"
)
HABITS = {
    "a ratio without per": (
        rf"\b(?:once|one|(?:an?|two|[0-9][0-9.,]*) (?!(?:{_JOINS})\b)[\w()`]+"
        rf"|one (?!(?:{_JOINS})\b)[\w()`]+) an? (?:{_UNITS})\b"
    ),
    "anew": r"\banew\b",
    "whoever": r"\b(?:whoever|whomever)\b",
    "is none": r"\b(?:is|are|was|were|be) (?-i:none)\b",
    "meanwhile": r"\bmeanwhile\b",
    "so many": r"(?<!not )\bso (?:many|much|long|few)\b(?! as\b)(?! that\b)",
    "by then": r"\bby then\b",
    "those of them": r"\b(?:those of (?:them|ours)|none of ours)\b",
    "a clause for a noun": (
        r"^(?-i:What) (?:is|was|are|were|has|had|they|a|an|the)\b.*[^?]$(?<=[.:;])"
    ),
    "was got": r"\b(?:is|are|was|were|been) got\b",
}
_HABIT = re.compile(
    "|".join(f"(?P<h{n}>{p})" for n, p in enumerate(HABITS.values())), re.IGNORECASE
)
_NAMES = list(HABITS)

# The end of a sentence: a full stop, before a character that may begin a sentence.
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'`(*\[])")
_C_COMMENT = re.compile(
    r"""(?s)"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|(?P<text>/\*.*?\*/|//[^\n]*)"""
)
_MARKDOWN_HEAD = re.compile(r"^\s*(?:[-*+>]|#+|\d+\.|\|)\s+|\s*\|\s*$")
_MAN_BREAK = re.compile(r"\.(?:Pp|It|Sh|Ss|Bl|El|Bd|Ed|Nm|Dd|Dt|Os|D1|Dl)\b ?")

Text = tuple[int, str]  # its first line, and the text with its line breaks


def python_texts(source: str) -> Iterator[Text]:
    """Yield comments (neighbouring lines as one) and strings of three or more words."""
    lines: list[str] = []
    first, after = 0, -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not re.match(
            r"#(?:!| noqa)", token.string
        ):
            row = token.start[0]
            alone = not token.line[: token.start[1]].strip()
            if lines and not (alone and row == after):
                yield first, "\n".join(lines)
                lines = []
            if not lines:
                first = row
            lines.append(re.sub(r"^#+ ?|  ?# (?:noqa|type:).*", "", token.string))
            after = row + 1 if alone else -1
    if lines:
        yield first, "\n".join(lines)
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Constant(str() as words) if len(words.split()) > 2:
                yield node.lineno, words


def c_texts(source: str) -> Iterator[Text]:
    """Yield comments; neighbouring lines with // are yielded as one text."""
    lines: list[str] = []
    first, after = 0, -1
    for match in _C_COMMENT.finditer(source):
        text = match["text"]
        if text is None:
            continue
        row = source.count("\n", 0, match.start()) + 1
        begin = source.rfind("\n", 0, match.start()) + 1
        alone = not source[begin : match.start()].strip()
        if lines and not (alone and row == after):
            yield first, "\n".join(lines)
            lines = []
        if not lines:
            first = row
        text = re.sub(r"^/\*+ ?|\*/$|^// ?", "", text)
        lines += [re.sub(r"^\s*\* ?", "", line) for line in text.split("\n")]
        after = row + text.count("\n") + 1 if alone else -1
    if lines:
        yield first, "\n".join(lines)


def markdown_texts(source: str) -> Iterator[Text]:
    """Yield the lines outside code blocks; no sentence goes over a line's end."""
    code = False
    for row, line in enumerate(source.split("\n"), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code and not line.startswith("    "):
            yield row, _MARKDOWN_HEAD.sub("", line)


def man_texts(source: str) -> Iterator[Text]:
    """Yield paragraphs, with the arguments of macros but without the macros."""
    lines: list[str] = []
    first = 1
    for row, line in enumerate(source.split("\n"), 1):
        if line.startswith('.\\"'):
            continue
        if _MAN_BREAK.match(line):
            yield first, "\n".join(lines)
            lines, first = [], row
        lines.append(re.sub(r"^\.[A-Z][a-z]\b ?|\\[&e]|\\f.", "", line))
    yield first, "\n".join(lines)


READERS = {
    ".py": python_texts,
    ".pyi": python_texts,
    ".c": c_texts,
    ".h": c_texts,
    ".md": markdown_texts,
    ".1": man_texts,
}


FOLDERS = ("pagescan", "tests", "examples", "benchmarks", "packaging", "docs", "man")


def sentences(texts: Iterator[Text]) -> Iterator[Text]:
    """Yield each sentence on one line, with the number of its first line."""
    for row, text in texts:
        for paragraph in re.finditer(r"(?:[^\n]|\n(?!\s*\n))+", text):
            at = paragraph.start()
            for piece in _SENTENCE.split(paragraph[0]):
                at = text.index(piece, at)
                words = piece.split()
                if len(words) > 2:
                    skipped = len(piece) - len(piece.lstrip())
                    yield row + text.count("\n", 0, at + skipped), " ".join(words)
                at += len(piece)


def habits(sentence: str) -> Iterator[str]:
    """Yield the name of each habit in a sentence, with the words that show it."""
    for match in _HABIT.finditer(sentence):
        yield f"{_NAMES[int((match.lastgroup or 'h0')[1:])]}: {match[0]!r}"


def all_files() -> list[str]:
    """Return the project's files with prose, without generated ones."""
    left_out = {Path(__file__).relative_to(Path.cwd())}
    left_out |= {Path("docs/api.md"), Path("pagescan/native/_shim.c")}
    return [
        str(path)
        for pattern in (*(f"{folder}/**/*" for folder in FOLDERS), "*")
        for path in sorted(Path().glob(pattern))
        if path.suffix in READERS and path not in left_out
    ]


def main(arguments: list[str]) -> None:
    """Print FILE:LINE, habit and sentence for each finding, then a count."""
    total = bad = 0
    for name in arguments or all_files():
        path = Path(name)
        for row, sentence in sentences(READERS[path.suffix](path.read_text("utf-8"))):
            total += 1
            if shown := list(habits(sentence)):
                bad += 1
                sys.stdout.write(f"{name}:{row}: {', '.join(shown)}\n    {sentence}\n")
    sys.stdout.write(f"prose: {bad} of {total} sentences have one of these habits\n")


if __name__ == "__main__":
    main(sys.argv[1:])
