-- The commands of fan-out. In a cluster, each node only knows the subscribers of its own slots
-- (syncapp/store/scripts.py).
local PUBLISH, SUBSCRIBE = 'PUBLISH', 'SUBSCRIBE'
