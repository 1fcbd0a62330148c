# C2: one message says since when a device is idle, the rest is inferred; a later one cancels it.
servers a b
@alice:b lists @john:a
@john:a lists @alice:b
advance 30s
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 10s
@john:a on DESK online
@john:a on DESK starts for 1h
advance 10s
# Idle for four minutes already: at five it counts.
@john:a on DESK idle 4m
advance 90s
@john:a on DESK back
advance 10s
