"""What a library needs before it can be imported."""

from __future__ import annotations

import sys
from typing import Any

from sdfrecon.geometry import InputError


def open3d() -> Any:
    """The open3d module, which tells errors alone, unless the program around has it already, as that has set it.

    Its wheel needs libraries that a bare Debian lacks; libusb-package brings libusb along.
    """
    import ctypes

    try:
        import libusb_package

        ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
    except (ImportError, OSError):
        pass  # the system's own libusb may do
    known = "open3d" in sys.modules
    try:
        import open3d as module
    except (ImportError, OSError) as error:
        raise InputError(
            f"Open3D cannot start ({error}): install what it names, on Debian or Ubuntu "
            "`apt-get install libusb-1.0-0 libgomp1 libgl1 libegl1 libx11-6`"
        ) from None
    if not known:
        module.utility.set_verbosity_level(module.utility.VerbosityLevel.Error)
    return module
