# E4, W8: what changes within a window leaves together, each user once, with the newest status.
servers a b
@john:a lists @alice:b
@jane:a lists @alice:b
@alice:b lists @john:a @jane:a
advance 30s
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 10s
@john:a on PHONE online "one"
@john:a on PHONE busy "two"
@john:a on PHONE online "three"
@jane:a on DESK online
advance 10s
