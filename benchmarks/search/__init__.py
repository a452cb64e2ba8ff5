"""Search of binary codes, ours and that of others, side by side: time, recall, building, memory, files.

``data.py`` makes the codes, ``contestants.py`` and ``engines.py`` adapt the libraries, ``worker.py`` runs one of them
in a process of its own, ``measuring.py`` lets all take turns, ``results.py`` keeps the raw numbers, ``markdown.py`` and
``drawing.py`` show them.
"""
