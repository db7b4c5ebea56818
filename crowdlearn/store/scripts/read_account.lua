#!lua flags=no-writes,allow-oom
-- Reads what a shard has committed of one replica, all of one moment.
-- KEYS: manifest, applied, ledger, stream   ARGV: replica, grants
-- Returns the time in ms, the offset, how many entries are not committed, what is applied, and the rows of each grant.
local time = redis.call('TIME')
local held = redis.call('HMGET', KEYS[1], 'offset', 'unwritten')
-- What a commit could not write is not there yet, whatever its offset says.
local offset = (held[2] or '') == '' and held[1] or '0-0'
local answer = {tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), offset,
                redis.call('XLEN', KEYS[4]), redis.call('HGET', KEYS[2], ARGV[1]) or ''}
for i = 2, #ARGV do
  answer[#answer + 1] = tonumber(redis.call('HGET', KEYS[3], ARGV[i]) or '0')
end
return answer
