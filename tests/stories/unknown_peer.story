# C5, E6, W5: a peer that answers no reminder is given up: its users are unknown, never offline. Anything heard revives it.
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
advance 15m
    94.6s b → a: push @alice:b online since 64s
    94.9s a → b: push @john:a online since 64s
    155.5s b → a: reminder (yours 1)
    155.8s a → b: reminder (yours 1)
    217.0s b → a: reminder (yours 1)
    217.5s a → b: reminder (yours 1)
    280.4s b → a: reminder (yours 1)
    280.7s a → b: reminder (yours 1)
    347.3s b → a: reminder (yours 1)
    348.3s a → b: reminder (yours 1)
    419.0s b → a: reminder (yours 1)
    419.4s a → b: reminder (yours 1)
    495.1s b → a: reminder (yours 1)
    498.4s a → b: reminder (yours 1)
    600.9s a → b: reminder (yours 1)
    612.3s b → a: reminder (yours 1)
    756.0s to @john:a: @alice:b unknown
    756.0s to @alice:b: @john:a unknown
    768.3s a → b: reminder (yours 1)
    787.8s b → a: reminder (yours 1)
@john:a reads list
    @alice:b accepted unknown, known for 910s
link a b up
advance 11m
    1083.3s a → b: reminder (yours 1)
    1083.3s b → a: reminder (yours 1); answer
    1088.0s b → a: push @alice:b online since 1058s; reminder (mine 1, yours 1)
    1088.2s a → b: push @john:a online since 1058s; reminder (mine 1, yours 1); answer; have
    1089.0s to @john:a: @alice:b online since 1059s
    1089.2s to @alice:b: @john:a online since 1059s
    1092.6s b → a: answer
    1148.9s a → b: reminder (mine 1, yours 1)
    1153.6s b → a: answer
    1213.6s b → a: reminder (mine 1, yours 1)
    1218.6s a → b: answer
    1278.9s a → b: reminder (mine 1, yours 1)
    1283.6s b → a: answer
    1343.6s b → a: reminder (mine 1, yours 1)
    1348.6s a → b: answer
    1408.9s a → b: reminder (mine 1, yours 1)
    1413.6s b → a: answer
    1473.6s b → a: reminder (mine 1, yours 1)
    1478.6s a → b: answer
    1538.9s a → b: reminder (mine 1, yours 1)
    1543.6s b → a: answer
    1603.6s b → a: reminder (mine 1, yours 1)
    1608.6s a → b: answer
@john:a reads list
    @alice:b accepted online since 1579s, known for 521s
