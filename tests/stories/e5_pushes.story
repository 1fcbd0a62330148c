# E5: interest is registered once; then every change is pushed, and nobody asks again.
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
@alice:b on LAPTOP unavailable
advance 10s
    54.0s b → a: push @alice:b unavailable since 4s
    55.1s to @john:a: @alice:b unavailable since 5s
@alice:b on LAPTOP busy
advance 10s
    64.0s b → a: push @alice:b busy active
    65.1s to @john:a: @alice:b busy active
@alice:b on LAPTOP online
advance 10s
    74.0s b → a: push @alice:b online active
    75.1s to @john:a: @alice:b online active
