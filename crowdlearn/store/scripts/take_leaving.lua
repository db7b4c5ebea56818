#!lua flags=allow-oom
-- Takes a run from the journal to let it go: from then on it cannot become the newest of a job.
-- KEYS: jobs, leaving   ARGV: run, '1' to take it although its submission may go on
-- Returns what the journal says of it; nil if it says nothing, if the run has time, or if it is the newest of its job.
local entry = redis.call('HGET', KEYS[2], ARGV[1])
if not entry then
  return nil
end
local jobs = redis.call('HGETALL', KEYS[1])
for i = 2, #jobs, 2 do
  if jobs[i] == ARGV[1] then
    -- Its registration was ended by an error half way.
    redis.call('HDEL', KEYS[2], ARGV[1])
    return nil
  end
end
local kind, due, rest = string.match(entry, '^(%S+) (%d+) (.*)$')
if kind == 'uploading' or kind == 'persisting' then
  if ARGV[2] ~= '1' and redis.call('TIME')[1] * 1000 < tonumber(due) then
    return nil
  end
  entry = 'given-up 0 ' .. rest
  redis.call('HSET', KEYS[2], ARGV[1], entry)
end
return entry
