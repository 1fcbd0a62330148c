# C6: adding somebody polls them, removing them ends it and tells their server.
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
@alice:b on LAPTOP online
@john:a on PHONE starts for 1h
advance 10s
@john:a drops @alice:b
advance 10s
@john:a reads list
@alice:b on LAPTOP unavailable
advance 10s
