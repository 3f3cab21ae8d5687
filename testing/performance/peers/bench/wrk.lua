-- Asks for each key of a file in turn, depth requests at a time.
--   wrk -s wrk.lua URL -- FILE DEPTH PADDING
local requests, n, at = {}, 0, 0

function init(args)
	local depth, padding = tonumber(args[2]), tonumber(args[3])
	local extra = ""
	if padding > 0 then
		extra = "X-Padding: " .. string.rep("p", padding - 13) .. "\r\n"
	end
	local single = {}
	for key in io.lines(args[1]) do
		single[#single + 1] = "GET /resolve/" .. key .. " HTTP/1.1\r\nHost: " .. wrk.host .. "\r\n" .. extra .. "\r\n"
	end
	n = #single
	for i = 1, n do
		local batch = {}
		for k = 0, depth - 1 do
			batch[k + 1] = single[(i + k - 1) % n + 1]
		end
		requests[i] = table.concat(batch)
	end
end

function request()
	at = at % n + 1
	return requests[at]
end

function done(summary, latency)
	local e = summary.errors
	io.write(string.format(
		'RESULT {"requests":%d,"failed":%d,"seconds":%f,"p50_us":%f,"p90_us":%f,"p99_us":%f,"p99_9_us":%f}\n',
		summary.requests, e.connect + e.read + e.write + e.status + e.timeout, summary.duration / 1e6,
		latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
