"""Settings of the whole suite: it runs in two processes, so each keeps to one thread, and so do those they start."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Small networks in many processes: to convert each for OpenVINO would take longer than to run them. test_encoders does.
os.environ.setdefault("DEEPHASH_ENCODER", "torch")
