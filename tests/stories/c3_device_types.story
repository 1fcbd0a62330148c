# C3: watchers see on what somebody is reached, and when that device is gone.
servers a b
@alice:b lists @john:a
@john:a lists @alice:b
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
@john:a on PHONE is mobile
@john:a on PHONE online
@john:a on PHONE starts for 1h
advance 10s
    34.0s b → a: poll @john:a
    34.4s a → b: push @john:a online active on mobile; poll @alice:b
    35.4s to @alice:b: @john:a online active on mobile
    39.0s b → a: push @alice:b online active
@alice:b reads @john:a
    online active on mobile, known for 5s
@john:a on PHONE is gone
advance 2m
    49.4s a → b: push @john:a offline since 19s
    50.4s to @alice:b: @john:a offline since 20s
    74.4s a → b: unpoll @alice:b
    104.4s a → b: reminder (mine 1, yours 0)
    109.0s b → a: answer
