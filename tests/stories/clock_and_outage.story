# E6: a peer that was cut off and back within its chances is asked once, and nobody was ever unknown.
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a on PHONE online
@john:a on PHONE starts for 1h
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 20s
    34.0s b → a: poll @john:a
    34.4s a → b: push @john:a online active; poll @alice:b
    35.4s to @alice:b: @john:a online active
    39.0s b → a: push @alice:b online active
    40.1s to @john:a: @alice:b online active
link a b silent
advance 2m
    94.0s b → a: push @alice:b online since 64s
    94.4s a → b: push @john:a online since 64s
    154.9s b → a: reminder (yours 1)
    155.3s a → b: reminder (yours 1)
link a b up
advance 2m
    174.4s a → b: push @john:a online since 144s
    175.0s b → a: answer
    175.4s to @alice:b: @john:a online since 145s
    179.4s a → b: answer
    180.0s b → a: push @alice:b online since 150s
    181.1s to @john:a: @alice:b online since 151s
    244.0s b → a: reminder (mine 1, yours 1)
    245.4s a → b: answer
    279.4s a → b: reminder (mine 1, yours 1)
    284.0s b → a: answer
@john:a reads list
    @alice:b accepted online since 259s, known for 109s
