# C5: the list shows whom, whether they agreed, and what is known; nothing known is not the same as offline.
servers a b c(foreign)
@john:a lists @alice:b @carol:c
@john:a reads list
@alice:b lists @john:a
@alice:b on LAPTOP offline
@john:a on PHONE starts for 10m
advance 30s
@john:a reads list
c sends a push @carol:c online
@john:a reads list
