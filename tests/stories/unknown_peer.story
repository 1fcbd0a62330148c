# C5, E6, W5: a peer that answers no reminder is given up: its users are unknown, never offline. Anything heard revives it.
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
advance 15m
    94.0s b → a: push @alice:b online since 64s
    94.4s a → b: push @john:a online since 64s
    154.9s b → a: reminder (yours 1)
    155.3s a → b: reminder (yours 1)
    216.4s b → a: reminder (yours 1)
    217.0s a → b: reminder (yours 1)
    279.8s b → a: reminder (yours 1)
    280.2s a → b: reminder (yours 1)
    346.7s b → a: reminder (yours 1)
    347.8s a → b: reminder (yours 1)
    418.4s b → a: reminder (yours 1)
    418.9s a → b: reminder (yours 1)
    494.5s b → a: reminder (yours 1)
    497.9s a → b: reminder (yours 1)
    600.4s a → b: reminder (yours 1)
    611.7s b → a: reminder (yours 1)
    756.0s to @john:a: @alice:b unknown
    756.0s to @alice:b: @john:a unknown
    767.8s a → b: reminder (yours 1)
    787.2s b → a: reminder (yours 1)
@john:a reads list
    @alice:b accepted unknown, known for 910s
link a b up
advance 11m
    1082.8s a → b: reminder (yours 1)
    1082.8s b → a: reminder (yours 1); answer
    1087.0s b → a: push @alice:b online since 1057s; reminder (mine 1, yours 1)
    1087.4s a → b: push @john:a online since 1057s; reminder (mine 1, yours 1); answer; have
    1088.1s to @john:a: @alice:b online since 1058s
    1088.4s to @alice:b: @john:a online since 1058s
    1092.0s b → a: answer
    1147.4s a → b: reminder (mine 1, yours 1)
    1152.0s b → a: answer
    1212.0s b → a: reminder (mine 1, yours 1)
    1216.4s a → b: answer
    1277.4s a → b: reminder (mine 1, yours 1)
    1281.0s b → a: answer
    1342.0s b → a: reminder (mine 1, yours 1)
    1346.4s a → b: answer
    1407.4s a → b: reminder (mine 1, yours 1)
    1411.0s b → a: answer
    1472.0s b → a: reminder (mine 1, yours 1)
    1476.4s a → b: answer
    1537.4s a → b: reminder (mine 1, yours 1)
    1541.0s b → a: answer
    1602.0s b → a: reminder (mine 1, yours 1)
    1606.4s a → b: answer
@john:a reads list
    @alice:b accepted online since 1579s, known for 522s
