from hypothesis import settings

# The same examples in every run, and no time limits: the machine may be busy.
settings.register_profile("index", derandomize=True, deadline=None)
settings.load_profile("index")
