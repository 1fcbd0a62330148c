# E5: interest is registered once; then every change is pushed, and nobody asks again.
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
@alice:b on LAPTOP unavailable
advance 10s
    54.6s b → a: push @alice:b unavailable since 4s
    55.7s to @john:a: @alice:b unavailable since 5s
@alice:b on LAPTOP busy
advance 10s
    64.6s b → a: push @alice:b busy active
    65.7s to @john:a: @alice:b busy active
@alice:b on LAPTOP online
advance 10s
    74.6s b → a: push @alice:b online active
    75.7s to @john:a: @alice:b online active
