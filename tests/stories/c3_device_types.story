# C3: watchers see on what somebody is reached, and when that device is gone.
servers a b
@alice:b lists @john:a
@john:a lists @alice:b
advance 30s
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
@john:a on PHONE is mobile
@john:a on PHONE online
@john:a on PHONE starts for 1h
advance 10s
@alice:b reads @john:a
@john:a on PHONE is gone
advance 2m
