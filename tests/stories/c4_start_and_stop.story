# C4, E1: nobody is polled without a session that cares; the last one gone, the poll ends after clients.linger.
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
@alice:b on LAPTOP online
advance 10s
@john:a on PHONE starts for 10m
advance 10s
# A second session says nothing to anybody.
@john:a on DESK starts for 10m
advance 10s
@john:a on PHONE stops
advance 40s
# A reconnect within the linger says nothing.
@john:a on DESK stops
advance 20s
@john:a on DESK starts for 10m
advance 20s
@john:a on DESK stops
advance 60s
