-- Replace decisions by what is left of them, each only if it is still what was read.
--
-- KEYS  decisions (a hash)
-- ARGV  for each decision: id, the text that was read, the text to write
-- Returns how many were replaced.

local replaced = {}
for i = 1, #ARGV, 3 do
  if redis.call("HGET", KEYS[1], ARGV[i]) == ARGV[i + 1] then
    replaced[#replaced + 1] = i
  end
end
for _, i in ipairs(replaced) do
  redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 2])
end
return #replaced
