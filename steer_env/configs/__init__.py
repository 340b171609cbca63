"""Settings, frozen and checked: the same objects are Python's arguments, the command line and the file.

Nothing here imports torch, and `import steer_env` does not import this.
"""
