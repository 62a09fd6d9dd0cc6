import sysconfig

from setuptools import setup

# One wheel for all versions from 3.11 on; free-threaded Python has no stable ABI.
abi3 = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"py_limited_api": "cp311"}
setup(cffi_modules=["pagescan/native/_build.py:ffi"], options={"bdist_wheel": abi3})
