# C4: what a /sync implies holds until the next one, and never over what was set.
servers a
@john:a on PHONE active as unavailable
advance 10s
@john:a reads @john:a
    unavailable
@john:a on PHONE active
advance 10s
@john:a reads @john:a
    online active
@john:a on PHONE online
advance 1s
@john:a on PHONE active as offline
advance 10s
@john:a reads @john:a
    offline since 11s
@john:a on PHONE busy
advance 1s
@john:a on PHONE active as unavailable
advance 10s
@john:a reads @john:a
    busy active
@john:a on PHONE offline
advance 1s
@john:a on PHONE active as online
advance 10s
@john:a reads @john:a
    offline since 11s
