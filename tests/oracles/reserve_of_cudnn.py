"""What cuDNN answers when it is asked how much a recurrent layer keeps, as JSON. Run by tests, in a process of its own.

The question needs no GPU: of the handle it takes only its place in memory, and answers before it finds that there is no
device to say how large a workspace should be.
"""

from __future__ import annotations

import ctypes
import json
import sys
from ctypes import byref, c_float, c_int, c_size_t, c_ulonglong, c_void_p

STANDARD, DOUBLE_BIAS, LINEAR_INPUT, PADDED, TRAINING = 0, 2, 0, 1, 1
LIBRARY, CASES = sys.argv[1], json.loads(sys.argv[2])
cudnn = ctypes.CDLL(LIBRARY)
cudnn.cudnnGetVersion.restype = c_size_t
room = ctypes.create_string_buffer(2**20)
handle = c_void_p(ctypes.addressof(room))


def made(kind: str) -> c_void_p:
    """A new descriptor."""
    descriptor = c_void_p()
    assert not cudnn[f"cudnnCreate{kind}Descriptor"](byref(descriptor))
    return descriptor


def sizes(
    mode: int, rows: int, inputs: int, hidden: int, projected: int, layers: int, directions: int, p: float, half: bool
) -> tuple[int, int]:
    """Bytes of the weights and of what a training forward keeps, of two sequences of rows / 2 steps."""
    dropout, rnn, data = made("Dropout"), made("RNN"), made("RNNData")
    state = c_void_p(ctypes.addressof(room)), c_size_t(2**20), c_ulonglong(0)
    assert not cudnn.cudnnRestoreDropoutDescriptor(dropout, handle, c_float(p), *state)
    dtype, size = (2 if half else 0), (inputs, hidden, projected or hidden, layers)
    way = (STANDARD, mode, DOUBLE_BIAS, directions - 1, LINEAR_INPUT, dtype, 0, int(half))
    assert not cudnn.cudnnSetRNNDescriptor_v8(rnn, *way, *size, dropout, PADDED)
    lengths = (c_int * 2)(rows // 2, rows // 2)
    assert not cudnn.cudnnSetRNNDataDescriptor(data, dtype, 0, rows // 2, 2, inputs, lengths, None)
    weights, workspace, reserve = c_size_t(), c_size_t(), c_size_t()
    assert not cudnn.cudnnGetRNNWeightSpaceSize(handle, rnn, byref(weights))
    cudnn.cudnnGetRNNTempSpaceSizes(handle, rnn, TRAINING, data, byref(workspace), byref(reserve))
    return weights.value, reserve.value


sys.stdout.write(json.dumps({"version": cudnn.cudnnGetVersion(), "sizes": [sizes(*case) for case in CASES]}))
