"use strict";
// The page of a report: it draws the document that the file holds, and computes
// nothing but where things go on the screen. Every text is set as text, never as HTML.
const crepeReport = (() => {
	let doc = null;
	const drawn = new Map(); // by figure id: {figure, place, chart, view}
	const state = new Map(); // by key of a figure: what the reader has chosen
	const dark = window.matchMedia("(prefers-color-scheme: dark)");
	let theme = ""; // chosen by the reader: "light", "dark"; empty: the system's

	function element(name, attributes, ...children) {
		const e = document.createElement(name);
		for (const [k, v] of Object.entries(attributes || {})) {
			if (v !== undefined && v !== null && v !== false) e.setAttribute(k, v === true ? "" : v);
		}
		e.append(...children.filter((c) => c !== null && c !== undefined));
		return e;
	}

	// Numbers.

	const isNumber = (v) => typeof v === "number" && isFinite(v);

	function text(v, column) {
		if (v === null || v === undefined) return "–";
		if (!isNumber(v)) return String(v);
		if (column && column.share) v *= 100;
		if (v !== 0 && (Math.abs(v) < 1e-4 || Math.abs(v) >= 1e9)) return v.toExponential(Math.max(0, ((column && column.digits) || 3) - 1));
		if (!column || !column.digits) return String(v);
		return new Intl.NumberFormat("en", { maximumSignificantDigits: column.digits, useGrouping: false }).format(v);
	}

	const unit = (c) => (c.share ? "%" : c.unit || "");
	const heading = (c) => c.name + (unit(c) ? " (" + unit(c) + ")" : "");
	const short = (s, n) => (s.length > n ? s.slice(0, n - 1) + "…" : s);
	const label = (v, column) => short(text(v, column), 28);

	// columnText returns the text of a column's numbers, all with the same decimals.
	function columnText(view, k, column) {
		const scale = column.share ? 100 : 1;
		const values = view.rows.map((r) => r[k]).filter((v) => isNumber(v) && v !== 0).map((v) => Math.abs(v * scale));
		if (!column.digits || !values.length) return (v) => text(v, column);
		const decimals = Math.min(12, Math.max(0, column.digits - 1 - Math.floor(Math.log10(Math.max(...values)))));
		const small = Math.min(...values) < 1e-4 || Math.max(...values) >= 1e9;
		return (v) => (!isNumber(v) || small ? text(v, column) : (v * scale).toFixed(decimals));
	}

	// Tables.

	function bestOf(view, k, column) {
		const values = view.rows.map((r) => r[k]).filter(isNumber);
		if (!column.best || values.length < 2) return null;
		return column.best === "low" ? Math.min(...values) : Math.max(...values);
	}

	function table(figure, view) {
		const columns = figure.columns;
		const numeric = columns.map((c, k) => view.rows.some((r) => isNumber(r[k])));
		const texts = columns.map((c, k) => columnText(view, k, c));
		const best = columns.map((c, k) => bestOf(view, k, c));
		const head = element("tr", {}, ...columns.map((c, k) => element("th", { scope: "col", class: numeric[k] ? "num" : null, dir: "auto" }, short(heading(c), 60))));
		const body = element("tbody");
		for (const row of view.rows) {
			const tr = element("tr");
			columns.forEach((c, k) => {
				const v = row[k];
				if (numeric[k]) {
					const mark = best[k] !== null && v === best[k];
					tr.append(element("td", { class: mark ? "num best" : "num" }, (mark ? "★ " : "") + texts[k](v)));
				} else {
					tr.append(element("td", {}, element("div", { class: "cell", dir: "auto" }, text(v, c))));
				}
			});
			body.append(tr);
		}
		return element("table", { "aria-label": figure.title }, element("thead", {}, head), body);
	}

	function csv(figure, view) {
		const quote = (v) => {
			const s = v === null || v === undefined ? "" : String(v);
			return /[",\n\r]/.test(s) ? '"' + s.replaceAll('"', '""') + '"' : s;
		};
		const name = (c) => c.name + (c.unit ? " (" + c.unit + ")" : "");
		return [figure.columns.map(name), ...view.rows].map((r) => r.map(quote).join(",") + "\n").join("");
	}

	async function copy(s, tools) {
		const old = tools.querySelector("textarea");
		if (old) old.remove();
		try {
			await navigator.clipboard.writeText(s);
			tools.querySelector("output").textContent = "copied";
		} catch {
			const area = element("textarea", { readonly: true, "aria-label": "CSV" });
			area.value = s;
			tools.append(area);
			area.select();
			tools.querySelector("output").textContent = "press Ctrl+C to copy";
		}
	}

	// Colours.

	const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

	function colours() {
		return {
			fg: css("--fg"), muted: css("--muted"), line: css("--line"), bg: css("--bg"), soft: css("--soft"),
			series: [0, 1, 2, 3, 4, 5, 6, 7].map((i) => css("--c" + i)), scale: [css("--low"), css("--mid"), css("--high")],
			turn: Number(css("--turn")), // from where on the scale a text in the background's colour is easier to read
		};
	}

	const symbols = ["circle", "triangle", "rect", "diamond", "emptyCircle", "emptyTriangle", "emptyRect", "emptyDiamond"];
	const dashes = ["solid", "dashed", "dotted", [8, 3, 2, 3]];

	// Charts. Each function returns an option of ECharts for the rows of a view.

	const unique = (values) => [...new Set(values)];

	// point is a datum that knows its row.
	const point = (value, row) => ({ value, row });

	function base(c) {
		return {
			animation: false,
			backgroundColor: "transparent",
			color: c.series,
			textStyle: { color: c.fg, fontFamily: getComputedStyle(document.body).fontFamily },
			grid: { left: 16, right: 24, top: 64, bottom: 44, containLabel: true },
			legend: { show: false, type: "scroll", top: 0, textStyle: { color: c.fg }, pageTextStyle: { color: c.fg }, formatter: (s) => short(s, 40) },
		};
	}

	function axis(c, column, more) {
		return Object.assign({
			type: "value", scale: true, name: column ? short(heading(column), 48) : "", nameLocation: "middle", nameGap: 28,
			nameTextStyle: { color: c.muted }, axisLabel: { color: c.fg, hideOverlap: true, formatter: (v) => label(v, column && { share: column.share, digits: 6 }) },
			axisLine: { onZero: false, lineStyle: { color: c.muted } }, splitLine: { lineStyle: { color: c.line } },
		}, more);
	}

	// upright is the axis on the left, with its name above it.
	const upright = (c, column, more) => axis(c, column, Object.assign({ nameLocation: "end", nameGap: 14, nameTextStyle: { color: c.muted, align: "left" } }, more));

	// tip shows all columns of a row.
	function tip(figure, view, c) {
		return {
			trigger: "item", confine: true, backgroundColor: c.bg, borderColor: c.muted, textStyle: { color: c.fg },
			formatter: (p) => {
				const row = view.rows[p.data && p.data.row];
				if (!row) return short(String(p.seriesName || ""), 60);
				return element("div", {}, ...figure.columns.map((col, k) => element("div", {}, short(col.name, 40) + ": " + short(text(row[k], col), 60) + (unit(col) && row[k] !== null ? " " + unit(col) : ""))));
			},
		};
	}

	// range returns the least and greatest value over all charts of a figure's scale; of a
	// view, if it has none.
	function range(figure, view) {
		let low = Infinity, high = -Infinity;
		for (const s of doc.sections) {
			for (const f of s.figures) {
				if (f !== figure && !(f.chart && f.chart.scale && f.chart.scale === figure.chart.scale)) continue;
				for (const v of figure.chart.scale ? f.views : [view]) {
					for (const r of v.rows) {
						const x = r[f.chart.value];
						if (isNumber(x)) { low = Math.min(low, x); high = Math.max(high, x); }
					}
				}
			}
		}
		return low <= high ? [low, high] : [0, 1];
	}

	function visualMap(figure, view, c, dimension) {
		const column = figure.columns[figure.chart.value];
		const [low, high] = range(figure, view);
		return {
			min: low, max: high > low ? high : low + (Math.abs(low) || 1) * 1e-9, dimension, calculable: false, orient: "horizontal", left: "center", bottom: 0, itemHeight: 120,
			inRange: { color: c.scale }, textStyle: { color: c.fg }, text: [text(high, column) + " " + unit(column), text(low, column)],
		};
	}

	const kinds = {
		heatmap(figure, view, c, width) {
			const { x, y, value } = figure.chart;
			const xs = unique(view.rows.map((r) => r[x])), ys = unique(view.rows.map((r) => r[y[0]]));
			const [low, high] = range(figure, view);
			const column = figure.columns[value];
			const cell = (width - 90) / Math.max(1, xs.length);
			const labels = cell >= 34 && xs.length * ys.length <= 600;
			const xAt = new Map(xs.map((v, i) => [v, i])), yAt = new Map(ys.map((v, i) => [v, i]));
			const data = view.rows.map((r, i) => {
				const v = r[value];
				const d = point([xAt.get(r[x]), yAt.get(r[y[0]]), isNumber(v) ? v : "-"], i);
				const strong = isNumber(v) && (v - low) / ((high - low) || 1) > c.turn;
				d.label = { color: strong ? c.bg : c.fg };
				return d;
			});
			return {
				height: Math.max(200, 150 + 22 * ys.length),
				tooltip: tip(figure, view, c),
				grid: { left: 16, right: 16, top: 30, bottom: 64, containLabel: true },
				xAxis: axis(c, null, { type: "category", data: xs.map(String), axisLabel: { color: c.fg, rotate: cell < 110 ? 40 : 0, formatter: (s) => short(String(s).split(".").slice(-1)[0], 16) }, splitLine: { show: false } }),
				yAxis: upright(c, figure.columns[y[0]], { type: "category", data: ys.map(String), inverse: true, nameLocation: "start", nameGap: 10, splitLine: { show: false } }),
				visualMap: visualMap(figure, view, c, 2),
				series: [{ type: "heatmap", name: column.name, data, itemStyle: { borderColor: c.bg, borderWidth: 1 }, label: { show: labels, fontSize: 11, formatter: (p) => text(p.value[2], { share: column.share, digits: 3 }) }, emphasis: { itemStyle: { borderColor: c.fg, borderWidth: 2 } } }],
			};
		},

		histogram(figure, view, c) {
			const { x, until, y } = figure.chart;
			const log = figure.chart.log_x && view.rows.every((r) => r[x] > 0);
			let top = 0;
			const series = y.slice().reverse().map((k, n, order) => {
				const data = view.rows.map((r, i) => {
					let floor = 0;
					for (const before of order.slice(0, n)) floor += r[before];
					top = Math.max(top, floor + r[k]);
					return point([r[x], r[until], r[k], floor, floor + r[k]], i);
				});
				const colour = c.series[n === 0 ? 1 : 0];
				return {
					type: "custom", name: figure.columns[k].name, data, encode: { x: [0, 1], y: [4] }, itemStyle: { color: colour },
					renderItem: (params, api) => {
						const a = api.coord([api.value(0), api.value(3)]), b = api.coord([api.value(1), api.value(4)]);
						return {
							type: "rect", shape: { x: a[0], y: b[1], width: Math.max(1, b[0] - a[0] - 1), height: Math.max(0, a[1] - b[1]) },
							style: n === 0 ? { fill: colour, fillOpacity: 0.25, stroke: colour, lineWidth: 1.5 } : { fill: colour },
						};
					},
				};
			});
			const first = view.rows[0], last = view.rows[view.rows.length - 1];
			const along = log ? Math.log : (v) => v;
			const right = (v) => along(v) - along(first[x]) > (along(last[until]) - along(first[x])) / 2;
			(view.marks || []).forEach((m, i, all) => series.push({
				type: "line", name: m.label, data: [[m.value, 0], [m.value, top * (1 + 0.08 * (all.length - i))]], symbol: "none", silent: true, z: 5,
				lineStyle: { color: c.fg, type: "dashed", width: 1.5 }, endLabel: { show: true, color: c.fg, formatter: m.label, align: right(m.value) ? "right" : "left", padding: right(m.value) ? [0, 12, 0, 0] : 0 }, clip: false,
			}));
			const exact = (v) => text(v, { digits: 2 });
			return {
				height: 340, tooltip: tip(figure, view, c),
				legend: { show: true, data: y.map((k) => figure.columns[k].name) },
				xAxis: axis(c, { name: "score" + (log ? ", logarithmic" : "") }, { type: log ? "log" : "value", min: first && first[x], max: last && last[until], axisLabel: { color: c.fg, hideOverlap: true, formatter: exact } }),
				yAxis: upright(c, { name: "weights" }, { scale: false }),
				series,
			};
		},

		area(figure, view, c) {
			const { x, y } = figure.chart;
			const ends = { scale: false, min: 0, max: 1 };
			return {
				height: 320, tooltip: tip(figure, view, c), legend: { show: true },
				xAxis: axis(c, figure.columns[x], ends), yAxis: upright(c, figure.columns[y[0]], ends),
				series: [
					{ type: "line", name: "this matrix", data: view.rows.map((r, i) => point([r[x], r[y[0]]], i)), symbol: "circle", symbolSize: 4, areaStyle: { opacity: 0.15 } },
					{ type: "line", name: "all scores equal", data: [[0, 0], [1, 1]], symbol: "none", lineStyle: { type: "dashed", color: c.muted }, itemStyle: { color: c.muted } },
				],
			};
		},

		lines(figure, view, c) {
			const { x, y, group } = figure.chart;
			const names = group < 0 ? [figure.columns[y[0]].name] : unique(view.rows.map((r) => r[group]));
			const category = !view.rows.every((r) => isNumber(r[x]));
			const xs = unique(view.rows.map((r) => r[x]));
			const values = view.rows.map((r) => r[y[0]]).filter(isNumber);
			const log = figure.chart.log_y && Math.min(...values) > 0 && Math.max(...values) > 10 * Math.min(...values); // below, a logarithmic axis has one tick
			const series = names.map((name, n) => ({
				type: "line", name: String(name), symbol: symbols[n % symbols.length], symbolSize: 8, color: c.series[n % c.series.length],
				lineStyle: { type: dashes[Math.floor(n / 2) % dashes.length] },
				data: broken(view.rows.map((r, i) => [r, i]).filter(([r]) => (group < 0 || r[group] === name) && isNumber(r[y[0]])).map(([r, i]) => point([category ? String(r[x]) : r[x], r[y[0]]], i))),
			}));
			const pointed = marks(view, c, series, category ? String(xs[0]) : xs[0]);
			return {
				height: 340, tooltip: tip(figure, view, c), legend: { show: names.length > 1, data: names.map(String) },
				grid: { ...base(c).grid, right: pointed ? 64 : 24 },
				xAxis: axis(c, figure.columns[x], category ? { type: "category", data: xs.map(String) } : { minInterval: 1 }),
				yAxis: upright(c, figure.columns[y[0]], { type: log ? "log" : "value", axisLabel: { color: c.fg, formatter: (v) => text(v, { share: figure.columns[y[0]].share, digits: 3 }) } }),
				series,
			};
		},

		bars(figure, view, c, width) {
			const { x, y, group, error } = figure.chart;
			const xs = unique(view.rows.map((r) => r[x]));
			const column = figure.columns[y[0]];
			const names = group < 0 ? y.map((k) => figure.columns[k].name) : unique(view.rows.map((r) => r[group]));
			const room = (width - 90) / xs.length; // pixels
			const series = [];
			const of = (n) => view.rows.map((r, i) => [r, i]).filter(([r]) => group < 0 || r[group] === names[n]);
			const key = (n) => (group < 0 ? y[n] : y[0]);
			names.forEach((name, n) => {
				const data = of(n).filter(([r]) => isNumber(r[key(n)])).map(([r, i]) => point([String(r[x]), r[key(n)]], i));
				if (figure.chart.stack && !data.some((d) => d.value[1] > 0)) return;
				series.push({ type: "bar", name: String(name), stack: figure.chart.stack ? "all" : null, barMaxWidth: 60, data, label: { show: y.length === 1 && view.rows.length <= 12 && room / (group < 0 ? 1 : names.length) > 48, position: "insideBottom", color: c.bg, textBorderColor: "transparent", formatter: (p) => text(p.value[1], { share: column.share, digits: 4 }) } });
			});
			const pointed = marks(view, c, series);
			const bars = series.length;
			const turned = xs.length > 6 || xs.some((v) => 7 * Math.min(18, String(v).length) > room);
			if (error >= 0) {
				names.forEach((name, n) => series.push({
					type: "custom", name: "± standard error", z: 5, silent: true, itemStyle: { color: c.fg }, encode: { x: 0, y: [1, 2] },
					data: of(n).filter(([r]) => isNumber(r[y[0]]) && isNumber(r[error])).map(([r, i]) => point([String(r[x]), r[y[0]] - r[error], r[y[0]] + r[error]], i)),
					renderItem: (params, api) => {
						const layout = api.barLayout({ barMaxWidth: 60, count: bars })[n];
						const a = api.coord([api.value(0), api.value(1)]), b = api.coord([api.value(0), api.value(2)]);
						const at = a[0] + layout.offsetCenter, w = Math.min(8, layout.width / 3);
						const line = (x1, y1, x2, y2) => ({ type: "line", shape: { x1, y1, x2, y2 }, style: { stroke: c.fg, lineWidth: 1.5 } });
						return { type: "group", children: [line(at, a[1], at, b[1]), line(at - w, a[1], at + w, a[1]), line(at - w, b[1], at + w, b[1])] };
					},
				}));
			}
			return {
				height: 340, tooltip: tip(figure, view, c), legend: { show: bars > 1, data: names.map(String) },
				aria: { enabled: true, decal: { show: bars > 1 } },
				grid: { ...base(c).grid, right: pointed ? 64 : 24 },
				xAxis: axis(c, figure.columns[x], { type: "category", data: xs.map(String), nameGap: turned ? 84 : 28, axisLabel: { color: c.fg, interval: 0, hideOverlap: true, rotate: turned ? 40 : 0, formatter: (s) => short(String(s), 18) } }),
				yAxis: upright(c, y.length > 1 ? { name: unit(column) } : column, { scale: false }),
				series,
			};
		},

		scatter(figure, view, c) {
			const { x, y, group } = figure.chart;
			const names = group < 0 ? [figure.columns[y[0]].name] : unique(view.rows.map((r) => r[group]));
			const cross = "path://M0,0 L3,0 L8,5 L13,0 L16,0 L16,3 L11,8 L16,13 L16,16 L13,16 L8,11 L3,16 L0,16 L0,13 L5,8 L0,3 Z";
			const sign = (name, n) => (name === "pruned in full" ? "circle" : String(name).includes("given up") ? cross : symbols[(group < 0 ? n : n + 1) % symbols.length]);
			const beside = figure.chart.label;
			return {
				height: 340, tooltip: tip(figure, view, c), legend: { show: names.length > 1, itemWidth: 12, itemHeight: 12 },
				xAxis: axis(c, figure.columns[x], {}), yAxis: upright(c, figure.columns[y[0]], { boundaryGap: [0, beside < 0 ? 0 : "10%"] }), // room for what is written above points
				series: names.map((name, n) => ({
					type: "scatter", name: String(name), symbol: sign(name, n), symbolSize: 10, color: c.series[n % c.series.length],
					label: { show: beside >= 0, position: "top", color: c.fg, fontSize: 11, padding: [0, 4], formatter: (p) => short(String(view.rows[p.data.row][beside]), 20) }, labelLayout: { hideOverlap: true },
					data: view.rows.map((r, i) => [r, i]).filter(([r]) => (group < 0 || r[group] === name) && isNumber(r[x]) && isNumber(r[y[0]])).map(([r, i]) => point([r[x], r[y[0]]], i)),
				})),
			};
		},

		triangle(figure, view, c, width) {
			const { y, value } = figure.chart;
			const at = (a, b, g) => [b + g / 2, (g * Math.sqrt(3)) / 2];
			const side = Math.min(width - 60, 420), left = (width - side) / 2;
			const rows = view.rows.map((r, i) => [r, i]).filter(([r]) => y.every((k) => isNumber(r[k])) && isNumber(r[value]));
			const low = Math.min(...rows.map(([r]) => r[value]));
			const hidden = (max) => ({ type: "value", min: 0, max, show: false });
			const corner = (name, v, position) => ({ value: v, label: { show: true, position, color: c.fg, formatter: name, fontSize: 14 } });
			return {
				height: side * 0.866 + 110, tooltip: tip(figure, view, c),
				grid: { left, top: 28, width: side, height: side * 0.866, containLabel: false },
				xAxis: hidden(1), yAxis: hidden(Math.sqrt(3) / 2),
				visualMap: Object.assign(visualMap(figure, view, c, 2), { seriesIndex: 1 }),
				series: [
					{ type: "line", name: "triangle", silent: true, symbol: "none", clip: false, lineStyle: { color: c.muted, width: 1 }, data: [at(1, 0, 0), at(0, 1, 0), at(0, 0, 1), at(1, 0, 0)] },
					{
						type: "scatter", name: figure.columns[value].name, symbolSize: 12, clip: false, itemStyle: { borderColor: c.muted, borderWidth: 1 },
						data: rows.map(([r, i]) => Object.assign(point([...at(r[y[0]], r[y[1]], r[y[2]]), r[value]], i), r[value] === low ? { symbol: "diamond", symbolSize: 20, label: { show: true, position: "right", color: c.fg, formatter: "lowest" } } : {})),
					},
					{ type: "scatter", name: "corners", silent: true, clip: false, symbolSize: 1, data: [corner(figure.columns[y[0]].name + " only", at(1, 0, 0), "bottom"), corner(figure.columns[y[1]].name + " only", at(0, 1, 0), "bottom"), corner(figure.columns[y[2]].name + " only", at(0, 0, 1), "top")] },
				],
			};
		},
	};

	// broken leaves a gap in a line between sparsities and N:M, which are no sequence.
	function broken(points) {
		const ofGroups = (p) => String(p.value[0]).includes(":");
		return points.flatMap((p, i) => (i > 0 && ofGroups(p) !== ofGroups(points[i - 1]) ? [{ value: [p.value[0], "-"] }, p] : [p]));
	}

	// marks points at values on the y axis, beside the chart, and reports whether there
	// are any. A point that is not to be seen at x keeps them in the chart.
	function marks(view, c, series, x) {
		const on = (view.marks || []).filter((m) => m.on_y);
		if (!on.length || !series.length) return false;
		series[0].markLine = {
			silent: true, symbol: "none", lineStyle: { color: c.fg, type: "dashed" }, label: { color: c.fg, position: "end", lineHeight: 14, formatter: (p) => p.name + "\n" + text(p.value, { digits: 5 }) },
			data: on.map((m) => ({ name: m.label, yAxis: m.value })),
		};
		if (x !== undefined) series.push({ type: "scatter", name: "room", silent: true, symbolSize: 0, data: on.map((m) => [x, m.value]) });
		return true;
	}

	// draw draws the chart of a figure.
	function draw(id) {
		const d = drawn.get(id);
		if (!d || !d.place) return;
		const c = colours(), width = d.place.clientWidth;
		const option = base(c);
		const own = kinds[d.figure.chart.kind](d.figure, d.view, c, width);
		const height = own.height;
		delete own.height;
		if (own.legend) own.legend = Object.assign(option.legend, own.legend);
		Object.assign(option, own);
		d.place.style.height = height + "px";
		if (d.chart) d.chart.dispose();
		const many = d.view.rows.length > 3000;
		d.chart = echarts.init(d.place, null, { renderer: many ? "canvas" : "svg", width, height });
		d.chart.setOption(option);
		d.width = width;
	}

	// Charts that come into view are drawn one by one, so that the page answers meanwhile.
	const queue = [];
	function drawNext() {
		const id = queue.shift();
		if (id !== undefined && !drawn.get(id)?.chart) draw(id);
		if (queue.length) setTimeout(drawNext);
	}
	const seen = new IntersectionObserver((entries) => {
		const idle = !queue.length;
		queue.push(...entries.filter((e) => e.isIntersecting).map((e) => e.target.dataset.figure));
		if (idle && queue.length) drawNext();
	}, { rootMargin: "600px" });

	function drawAll() { for (const id of drawn.keys()) draw(id); }
	function drawAgain() { for (const [id, d] of drawn) if (d.chart) draw(id); }

	// Figures.

	const key = (section, f) => [section.id, f.of || "", f.title].join("\n");

	function choose(section, f, viewLabel) {
		for (const g of section.figures) {
			if (g.of !== f.of || g.choice !== f.choice) continue;
			const d = drawn.get(g.id), k = g.views.findIndex((v) => v.label === viewLabel);
			if (!d || k < 0) continue;
			state.set(key(section, g), Object.assign(state.get(key(section, g)) || {}, { view: viewLabel }));
			d.view = g.views[k];
			if (d.select) d.select.selectedIndex = k;
			d.fill();
			if (d.chart) draw(g.id);
		}
	}

	const fewRows = 40;

	function figureElement(section, f) {
		const was = state.get(key(section, f)) || {};
		const view = f.views.find((v) => v.label !== undefined && v.label === was.view) || f.views[0];
		const d = { figure: f, view };
		drawn.set(f.id, d);
		const box = element("figure", { id: f.id, class: f.texts || !f.chart ? "wide" : null },
			element("figcaption", {}, element("h3", { dir: "auto" }, f.title), f.of ? element("span", { class: "of", dir: "auto" }, f.of) : null));
		if (f.views.length > 1) {
			d.select = element("select", {}, ...f.views.map((v) => element("option", {}, short(v.label, 120))));
			d.select.selectedIndex = f.views.indexOf(view);
			d.select.addEventListener("change", () => choose(section, f, f.views[d.select.selectedIndex].label));
			box.append(element("label", {}, f.choice + " ", d.select));
		} else if (view.label) {
			box.append(element("p", { class: "note" }, f.choice + ": " + short(view.label, 120)));
		}
		const note = element("p", { class: "note" });
		box.append(note);
		if (f.chart) {
			d.place = element("div", { class: "chart", role: "img", "data-figure": f.id, "aria-label": f.title + (f.of ? " of " + short(f.of, 80) : "") + "; the numbers are in the table below" });
			d.place.style.height = "300px";
			box.append(d.place);
		}
		const body = element("div");
		if (f.texts) {
			box.append(body);
		} else {
			const details = element("details", {}, element("summary", {}, "Numbers"), body);
			details.open = was.open !== undefined ? was.open : !f.chart && view.rows.length <= fewRows;
			details.addEventListener("toggle", () => {
				state.set(key(section, f), Object.assign(state.get(key(section, f)) || {}, { open: details.open }));
				d.fill();
			});
			d.details = details;
			box.append(details);
		}
		d.fill = () => {
			note.textContent = d.view.note || "";
			note.hidden = !d.view.note;
			if (f.texts) {
				body.className = "texts";
				body.replaceChildren(...f.columns.map((c, k) => element("div", {}, element("h4", { class: "of", dir: "auto" }, c.name), element("pre", { dir: "auto", tabindex: "0" }, text(d.view.rows[0][k])))));
				return;
			}
			d.details.firstChild.textContent = "Numbers (" + d.view.rows.length + (d.view.rows.length === 1 ? " row)" : " rows)");
			if (!d.details.open) {
				body.replaceChildren();
				return;
			}
			const button = element("button", { type: "button" }, "Copy as CSV");
			const tools = element("div", { class: "tools" }, button, " ", element("output", {}));
			button.addEventListener("click", () => copy(csv(f, d.view), tools));
			const hints = new Map(); // the columns of each
			for (const c of f.columns) if (c.hint) hints.set(c.hint, (hints.get(c.hint) || []).concat(c));
			body.replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": f.title }, table(f, d.view)), tools,
				hints.size ? element("ul", { class: hints.size > 3 ? "hints many" : "hints" }, ...[...hints].map(([hint, of]) => element("li", { dir: "auto" }, short(of.map((c) => c.name).join(", "), 80) + ": " + hint))) : "");
		};
		d.fill();
		return box;
	}

	// show replaces what the page shows. What the reader has chosen stays.
	function show(next) {
		doc = next;
		const main = document.getElementById("report"), contents = document.getElementById("contents");
		for (const d of drawn.values()) if (d.chart) d.chart.dispose();
		drawn.clear();
		seen.disconnect();
		document.getElementById("made").textContent = doc.crepe + ", " + doc.made.replace("T", " ").replace("Z", " UTC");
		contents.replaceChildren(...doc.sections.map((s) => element("a", { href: "#" + s.id }, s.title)));
		main.replaceChildren(...doc.sections.map((s) => element("section", { "aria-labelledby": s.id },
			element("h2", { id: s.id }, s.title), element("p", { class: "lead" }, s.lead),
			element("div", { class: "figures" }, ...s.figures.map((f) => figureElement(s, f))))));
		if (!doc.sections.length) main.append(element("p", {}, "There is nothing to show."));
		for (const d of drawn.values()) if (d.place) seen.observe(d.place);
	}

	function paint() {
		const now = theme || (dark.matches ? "dark" : "light");
		document.documentElement.dataset.theme = now;
		document.getElementById("theme").textContent = now === "dark" ? "Light" : "Dark";
		drawAgain();
	}

	document.getElementById("theme").addEventListener("click", () => {
		theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
		paint();
	});
	dark.addEventListener("change", paint);
	window.addEventListener("resize", () => {
		for (const [id, d] of drawn) if (d.chart && d.place.clientWidth !== d.width) draw(id);
	});
	let before = "";
	window.addEventListener("beforeprint", () => {
		before = document.documentElement.dataset.theme;
		document.documentElement.dataset.theme = "light";
		drawAll();
	});
	window.addEventListener("afterprint", () => {
		document.documentElement.dataset.theme = before;
		drawAgain();
	});

	paint();
	show(JSON.parse(document.getElementById("data").textContent));
	return { show, draw, csv: (id) => csv(drawn.get(id).figure, drawn.get(id).view) };
})();
