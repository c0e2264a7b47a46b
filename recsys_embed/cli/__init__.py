"""The command line: parse, call one function, print. Heavy imports live inside the commands."""
