# E6: a peer that was cut off and back within its chances is asked once, and nobody was ever unknown.
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.6s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.9s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.6s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a on PHONE online
@john:a on PHONE starts for 1h
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 20s
    34.6s b → a: poll @john:a
    34.9s a → b: push @john:a online active; poll @alice:b
    35.9s to @alice:b: @john:a online active
    39.6s b → a: push @alice:b online active
    40.6s to @john:a: @alice:b online active
link a b silent
advance 2m
    94.6s b → a: push @alice:b online since 64s
    94.9s a → b: push @john:a online since 64s
    155.5s b → a: reminder (yours 1)
    155.8s a → b: reminder (yours 1)
link a b up
advance 2m
    170.9s a → b: answer
    175.3s b → a: push @alice:b online since 145s; answer
    175.8s a → b: push @john:a online since 145s
    176.3s to @john:a: @alice:b online since 146s
    176.8s to @alice:b: @john:a online since 146s
    240.6s b → a: reminder (mine 1, yours 1)
    240.9s a → b: reminder (mine 1, yours 1); answer
    245.3s b → a: answer
    279.9s a → b: reminder (mine 1, yours 1)
    284.6s b → a: answer
@john:a reads list
    @alice:b accepted online since 259s, known for 114s
