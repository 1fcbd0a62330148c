# S1: a question survives restarts on both sides, and is asked again until it is answered.
config list.accept = ask
servers a b
link a b silent
@john:a lists @alice:b
advance 2m
    4.4s a → b: push @john:a offline; invite @john:a for @alice:b
    69.4s a → b: push @john:a offline; invite @john:a for @alice:b
restart a
link a b up
advance 3m
    129.0s b → a: unpoll @john:a
@alice:b reads requests
    @john:a asks
restart b
@alice:b reads requests
    @john:a asks
advance 2h
    2899.4s a → b: invite @john:a for @alice:b
@alice:b denies @john:a
advance 10s
    7504.0s b → a: deny @john:a by @alice:b
@john:a reads list
    nobody
