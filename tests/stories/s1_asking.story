# S1, S2: the one asked for decides; until then the entry is not accepted and nothing is shown.
config list.accept = ask
servers a b
@alice:b on LAPTOP online
@john:a on PHONE starts for 10m
@john:a lists @alice:b
advance 10s
@john:a reads list
@john:a reads @alice:b
@alice:b reads requests
@alice:b allows @john:a
advance 20s
@john:a reads list
@alice:b reads requests
# Later revoked: at once, and the entry is gone.
@alice:b denies @john:a
advance 10s
@john:a reads list
@alice:b on LAPTOP busy
advance 10s
