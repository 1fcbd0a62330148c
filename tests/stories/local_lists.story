# Lists of users of one's own server work the same, and nothing leaves the server.
config list.accept = ask
servers a
@john:a on PHONE starts for 10m
@mary:a on DESK online
@john:a lists @mary:a
@john:a reads list
    @mary:a asked unknown
@mary:a reads requests
    @john:a asks
@mary:a allows @john:a
advance 2s
    1.0s to @john:a: @mary:a online active
@john:a reads list
    @mary:a accepted online active
@mary:a on DESK unavailable
advance 2s
    3.0s to @john:a: @mary:a unavailable since 1s
@mary:a denies @john:a
advance 2s
    5.0s to @john:a: @mary:a unknown
@john:a reads @mary:a
    forbidden
@john:a reads list
    nobody
