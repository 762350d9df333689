import signal

# A shell's background job ignores Ctrl-C, and what tests start would inherit
# that.
signal.signal(signal.SIGINT, signal.default_int_handler)
