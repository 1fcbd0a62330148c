# S1: a question survives restarts on both sides, and is asked again until it is answered.
config list.accept = ask
servers a b
link a b silent
@john:a lists @alice:b
advance 2m
restart a
link a b up
advance 3m
@alice:b reads requests
restart b
@alice:b reads requests
advance 2h
@alice:b denies @john:a
advance 10s
@john:a reads list
