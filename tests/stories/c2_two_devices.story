# C2: what one device says does not flicker while another is active.
servers a b
@alice:b lists @john:a
@john:a lists @alice:b
advance 30s
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 10s
@john:a on DESK online
@john:a on DESK starts for 1h
@john:a on PHONE online
@john:a on PHONE starts for 1h
advance 10s
@john:a on DESK idle 10m
advance 30s
@john:a on PHONE unavailable
advance 30s
