-- Replace what is stored about a bandit, if it is still what the caller has seen.
--
-- KEYS  control (a hash)
-- ARGV  bandit, what was read or "" for none, what to write, an id of this call
-- Returns 1 if it was written, also if it was by this very call, whose answer got lost.

local bandit, expected, wanted, call = unpack(ARGV)
local stored = redis.call("HGET", KEYS[1], bandit)
local by, text = "", ""
if stored then
  by, text = string.match(stored, "^([^\30]*)\30(.*)$")
end
if by == call then
  return 1
end
if text ~= expected then
  return 0
end
redis.call("HSET", KEYS[1], bandit, call .. "\30" .. wanted)
return 1
