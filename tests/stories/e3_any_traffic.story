# E3, W4: whoever says anything is up, and nothing of theirs has changed: no reminder is sent while b talks.
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
@alice:b on LAPTOP online "one"
advance 50s
    54.0s b → a: push @alice:b online active "one"
    55.1s to @john:a: @alice:b online active "one"
    94.4s a → b: push @john:a online since 64s
    95.4s to @alice:b: @john:a online since 65s
@alice:b on LAPTOP online "two"
advance 50s
    104.0s b → a: push @alice:b online active "two"
    105.1s to @john:a: @alice:b online active "two"
@alice:b on LAPTOP online "three"
advance 50s
    154.0s b → a: push @alice:b online active "three"
    155.1s to @john:a: @alice:b online active "three"
    159.0s b → a: reminder (mine 1, yours 1)
    163.4s a → b: answer
@alice:b on LAPTOP online "four"
advance 50s
    204.0s b → a: push @alice:b online active "four"
    205.1s to @john:a: @alice:b online active "four"
    228.0s b → a: reminder (mine 1, yours 1)
    232.4s a → b: answer
