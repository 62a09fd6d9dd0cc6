import sysconfig

from setuptools import setup

# One wheel for all versions from 3.11 on; a free-threaded Python has no stable ABI.
free = sysconfig.get_config_var("Py_GIL_DISABLED")
options = {} if free else {"bdist_wheel": {"py_limited_api": "cp311"}}
setup(cffi_modules=["pagescan/native/_build.py:ffi"], options=options)
