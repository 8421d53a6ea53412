-- Prints how many primes there are up to the number that it is given.
local limit = tonumber(arg[1])
local composite, count = {}, 0
for n = 2, limit do
  if not composite[n] then
    count = count + 1
    for multiple = n * n, limit, n do composite[multiple] = true end
  end
end
print(_VERSION .. ": " .. count .. " primes up to " .. limit)
