from tests.refusals import refusals


def sites():
    return {s.name: s for s in refusals()}


def guarded(nodeid):
    return []
