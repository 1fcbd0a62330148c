# W8, P1: one change reaches each watching user of its server once, and each watching server once, however many watch there.
config list.accept = everyone
servers a b
@john:a lists @alice:a
@mary:a lists @alice:a
@carol:b lists @alice:a
@dave:b lists @alice:a
advance 20s
    4.0s b → a: push @carol:b offline, @dave:b offline; invite @carol:b for @alice:a; invite @dave:b for @alice:a
    8.4s a → b: unpoll @carol:b, @dave:b; accept @carol:b by @alice:a; accept @dave:b by @alice:a
@alice:a on LAPTOP online
@alice:a on LAPTOP starts for 1h
@john:a on PHONE starts for 1h
@mary:a on DESK starts for 1h
@carol:b on WEB starts for 1h
@dave:b on WEB starts for 1h
advance 20s
    21.0s to @john:a: @alice:a online active
    21.0s to @mary:a: @alice:a online active
    24.0s b → a: poll @alice:a
    28.4s a → b: push @alice:a online active
    29.4s to @carol:b: @alice:a online active
    29.4s to @dave:b: @alice:a online active
@alice:a on LAPTOP busy
advance 10s
    41.0s to @john:a: @alice:a busy active
    41.0s to @mary:a: @alice:a busy active
    44.4s a → b: push @alice:a busy active
    45.4s to @carol:b: @alice:a busy active
    45.4s to @dave:b: @alice:a busy active
