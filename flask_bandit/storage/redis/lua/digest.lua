-- Replace the summary of a version's log, if it still has the revision that the caller has seen.
--
-- KEYS  digests (a hash)
-- ARGV  field, the revision that was read or 0 for none, what to write, an id of this call
-- Returns 1 if it was written, also if it was by this very call, whose answer got lost.

local field, seen, wanted, call = unpack(ARGV)
local stored = redis.call("HGET", KEYS[1], field)
local revision, by
if stored then
  revision, by = string.match(stored, "^([1-9]%d*)\30([^\30]*)\30")
end
if by == call then
  return 1
end
-- What is not of this library is read as nothing, and replaced as nothing.
if (revision or "0") ~= seen then
  return 0
end
redis.call("HSET", KEYS[1], field, wanted)
return 1
