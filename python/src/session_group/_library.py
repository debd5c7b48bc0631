"""The functions of session_group.h, and those of TensorFlow's C API, which the library links."""

import ctypes
from collections.abc import Callable
from ctypes import c_char_p, c_double, c_int, c_int32, c_int64, c_size_t, c_uint64
from pathlib import Path
from typing import Any, cast

from . import _tensorflow  # noqa: F401  # TensorFlow's libraries must be there before ours.

_bool = ctypes.c_bool
_ptr = ctypes.c_void_p  # of any type; arrays are passed as such, too

# Name: result, arguments. These run for a moment and keep the GIL: giving it away and waiting for it
# again would take longer.
_QUICK: dict[str, tuple[Any, ...]] = {
    "TF_NewStatus": (_ptr,),
    "TF_DeleteStatus": (None, _ptr),
    "TF_GetCode": (c_int, _ptr),
    "TF_Message": (c_char_p, _ptr),
    "TF_NewBuffer": (_ptr,),
    "TF_NewBufferFromString": (_ptr, c_char_p, c_size_t),
    "TF_DeleteBuffer": (None, _ptr),
    "TF_NewSessionOptions": (_ptr,),
    "TF_SetConfig": (None, _ptr, c_char_p, c_size_t, _ptr),
    "TF_DeleteSessionOptions": (None, _ptr),
    "TF_AllocateTensor": (_ptr, c_int, _ptr, c_int, c_size_t),
    "TF_TensorMaybeMove": (_ptr, _ptr),
    "TF_DeleteTensor": (None, _ptr),
    "TF_TensorType": (c_int, _ptr),
    "TF_NumDims": (c_int, _ptr),
    "TF_Dim": (c_int64, _ptr, c_int),
    "TF_TensorByteSize": (c_size_t, _ptr),
    "TF_TensorData": (_ptr, _ptr),
    "TF_StringInit": (None, _ptr),
    "TF_StringCopy": (None, _ptr, c_char_p, c_size_t),
    "TF_StringGetSize": (c_size_t, _ptr),
    "TF_StringGetDataPointer": (_ptr, _ptr),
    "NewSessionGroupOptions": (_ptr,),
    "SessionGroupOptions_SetSessionNum": (None, _ptr, c_int32),
    "SessionGroupOptions_SetCpuset": (None, _ptr, c_char_p, _ptr),
    "SessionGroupOptions_SetThreadPoolAffinity": (None, _ptr, _bool),
    "SessionGroupOptions_SetPolicy": (None, _ptr, c_char_p, _ptr),
    "SessionGroupOptions_SetExecution": (None, _ptr, c_char_p, _ptr),
    "SessionGroupOptions_SetKernels": (None, _ptr, c_char_p, _ptr),
    "SessionGroupOptions_SetOptimization": (None, _ptr, c_char_p, _bool, _ptr),
    "SessionGroupOptions_SetWorkerThreads": (None, _ptr, c_int32),
    "SessionGroupOptions_SetQueue": (None, _ptr, c_int32, _bool),
    "SessionGroupOptions_SetDrainTimeout": (None, _ptr, c_int64),
    "SessionGroupOptions_SetMultiStream": (None, _ptr, _bool),
    "SessionGroupOptions_SetGpuIds": (None, _ptr, _ptr, c_int32, _ptr),
    "SessionGroupOptions_Delete": (None, _ptr),
    "SessionGroup_SessionNum": (c_int32, _ptr),
}

_names = (_ptr, c_int32)
_feeds = (_ptr, _ptr, c_int32)
_fetches = (_ptr, _ptr, c_int32)

# These may take long, or wait for what other Python threads do, and so give the GIL away.
_SLOW: dict[str, tuple[Any, ...]] = {
    "LoadSessionGroupFromSavedModel": (
        *(_ptr, _ptr, _ptr, c_char_p),
        *(*_names, _ptr, _ptr, _ptr),
    ),
    "SessionGroup_Close": (None, _ptr, _ptr),
    "SessionGroup_Delete": (None, _ptr),
    "SessionGroup_RunOn": (
        *(None, _ptr, c_int32, _ptr),
        *(*_feeds, *_fetches, *_names, _ptr, _ptr),
    ),
    "SessionGroup_WarmUp": (None, _ptr, *_feeds, *_names, *_names, _ptr),
    "SessionGroup_MakeCallable": (_ptr, _ptr, *_names, *_names, *_names, _ptr),
    "SessionGroupCallable_Run": (None, _ptr, _ptr, c_int32, _ptr, c_int32, _ptr),
    "SessionGroupCallable_Delete": (None, _ptr),
    "SessionGroup_GetStats": (None, _ptr, c_int32, _ptr, _ptr),
    "SessionGroup_GetMemoryStats": (None, _ptr, _ptr),
    "SessionGroup_LatencyQuantile": (c_uint64, _ptr, c_int32, c_double, _ptr),
    "SessionGroup_MetricsText": (None, _ptr, _ptr, _ptr),
    "SessionGroup_Describe": (None, _ptr, _ptr, _ptr),
    "SessionGroup_Explain": (None, _ptr, _ptr, _ptr),
    "SessionGroup_AllMetricsText": (None, _ptr, _ptr),
    "SessionGroup_DescribeAll": (None, _ptr, _ptr),
    "SessionGroup_ExplainAll": (None, _ptr, _ptr),
}


class Library:
    """Binds each function when it is first asked for."""

    def __init__(self, path: Path) -> None:
        self._quick = ctypes.PyDLL(str(path))
        self._slow = ctypes.CDLL(str(path))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: Any
        if name in _QUICK:
            function, (result, *arguments) = getattr(self._quick, name), _QUICK[name]
        elif name in _SLOW:
            function, (result, *arguments) = getattr(self._slow, name), _SLOW[name]
        else:
            raise AttributeError(name)
        function.restype, function.argtypes = result, arguments
        setattr(self, name, function)  # The next time, this is found instead.
        return cast(Callable[..., Any], function)


lib = Library(Path(__file__).parent / "libsession_group.so")

_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.restype, _view.argtypes = ctypes.py_object, (_ptr, ctypes.c_ssize_t, c_int)
_READ, _WRITE = 0x100, 0x200  # PyBUF_READ, PyBUF_WRITE


def memory(address: int, size: int, writable: bool = False) -> memoryview:
    """A view of memory, which must stay there as long as the view."""
    flags = _WRITE if writable else _READ
    return cast(memoryview, _view(address, size, flags))
