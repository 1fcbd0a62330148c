# W1, W2, E2, S3: on first appearance one message carries the new status and the request; one message answers.
servers a b
@john:a lists @alice:b @bob:b
@jane:a lists @bob:b
@alice:b lists @john:a
@bob:b lists @john:a @jane:a
advance 30s
    4.0s b → a: push @alice:b offline, @bob:b offline; invite @bob:b for @jane:a; invite @alice:b for @john:a; invite @bob:b for @john:a
    4.4s a → b: push @jane:a offline, @john:a offline; unpoll @alice:b, @bob:b; invite @john:a for @alice:b; invite @jane:a for @bob:b; invite @john:a for @bob:b; accept @bob:b by @jane:a; accept @alice:b by @john:a; accept @bob:b by @john:a
    9.0s b → a: unpoll @jane:a, @john:a; accept @john:a by @alice:b; accept @jane:a by @bob:b; accept @john:a by @bob:b
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
@bob:b on PHONE online
@bob:b on PHONE starts for 1h
advance 10s
    34.0s b → a: poll @jane:a, @john:a
    38.4s a → b: push @jane:a offline, @john:a offline
    39.4s to @alice:b: @john:a offline
    39.4s to @bob:b: @jane:a offline, @john:a offline
# Two appear within a window: both statuses and everybody whom they list, in one message.
@john:a on PHONE online
@john:a on PHONE starts for 1h
@jane:a on DESK online
@jane:a on DESK starts for 1h
advance 10s
    44.4s a → b: push @jane:a online active, @john:a online active; poll @alice:b, @bob:b
    45.4s to @alice:b: @john:a online active
    45.4s to @bob:b: @jane:a online active, @john:a online active
    49.0s b → a: push @alice:b online active, @bob:b online active
