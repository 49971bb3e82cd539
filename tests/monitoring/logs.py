def run(work, binary, count):
    pass
