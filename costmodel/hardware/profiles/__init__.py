"""torch.profiler's Chrome traces, of this machine or of anybody's: read, attributed to a network's layers, summed up.

    events       what a trace holds, as plain data
    chrome       the file -> events, in pieces, so that a trace of gigabytes fits
    host         the events of the host, nested: which operator launched a kernel, for which layer and phase
    annotations  layers that the trace names itself
    alignment    or else: its sequence of operators beside that of our trace
    repetitions  the steps of a trace, and which of them were cold
    join         events -> seconds by layer and phase
    foreign      somebody's trace -> a measurement record
    summary      what a trace says without a network

No file here needs torch.
"""
