def check():
    return True, ""
