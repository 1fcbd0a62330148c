# E3, W4: whoever says anything is up, and nothing of theirs has changed: no reminder is sent while b talks.
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
@alice:b on LAPTOP online "one"
advance 50s
    54.6s b → a: push @alice:b online active "one"
    55.7s to @john:a: @alice:b online active "one"
    94.9s a → b: push @john:a online since 64s
    95.9s to @alice:b: @john:a online since 65s
@alice:b on LAPTOP online "two"
advance 50s
    104.6s b → a: push @alice:b online active "two"
    105.7s to @john:a: @alice:b online active "two"
@alice:b on LAPTOP online "three"
advance 50s
    154.6s b → a: push @alice:b online active "three"
    155.7s to @john:a: @alice:b online active "three"
    159.6s b → a: reminder (mine 1, yours 1)
    164.6s a → b: answer
@alice:b on LAPTOP online "four"
advance 50s
    204.6s b → a: push @alice:b online active "four"
    205.7s to @john:a: @alice:b online active "four"
    229.6s b → a: reminder (mine 1, yours 1)
    234.6s a → b: answer
