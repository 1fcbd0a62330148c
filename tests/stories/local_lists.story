# Lists of users of one's own server work the same, and nothing leaves the server.
config list.accept = ask
servers a
@john:a on PHONE starts for 10m
@mary:a on DESK online
@john:a lists @mary:a
@john:a reads list
@mary:a reads requests
@mary:a allows @john:a
advance 2s
@john:a reads list
@mary:a on DESK unavailable
advance 2s
@mary:a denies @john:a
advance 2s
@john:a reads @mary:a
@john:a reads list
