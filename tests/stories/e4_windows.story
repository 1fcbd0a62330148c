# E4, W8: what changes within a window leaves together, each user once, with the newest status.
servers a b
@john:a lists @alice:b
@jane:a lists @alice:b
@alice:b lists @john:a @jane:a
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @jane:a; invite @alice:b for @john:a
    4.4s a → b: push @jane:a offline, @john:a offline; unpoll @alice:b; invite @jane:a for @alice:b; invite @john:a for @alice:b; accept @alice:b by @jane:a; accept @alice:b by @john:a
    9.0s b → a: unpoll @jane:a, @john:a; accept @jane:a by @alice:b; accept @john:a by @alice:b
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 10s
    34.0s b → a: poll @jane:a, @john:a
    38.4s a → b: push @jane:a offline, @john:a offline
    39.4s to @alice:b: @jane:a offline, @john:a offline
@john:a on PHONE online "one"
@john:a on PHONE busy "two"
@john:a on PHONE online "three"
@jane:a on DESK online
advance 10s
    44.4s a → b: push @jane:a online active, @john:a online active "three"
    45.4s to @alice:b: @jane:a online active, @john:a online active "three"
