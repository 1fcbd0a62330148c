# C6, within a server: who is dropped is off the list, their changes reach the one who dropped them no longer, and nothing leaves.
servers a
@john:a lists @mary:a
@mary:a lists @john:a
@mary:a on DESK online
@john:a on PHONE starts for 10m
advance 2s
    1.0s to @john:a: @mary:a online active
@john:a drops @mary:a
advance 2s
    3.0s to @john:a: @mary:a unknown
@john:a reads list
    nobody
@mary:a on DESK busy
advance 1m
