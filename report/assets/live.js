"use strict";
// Beside the report: the list of what there is, and news from the server.
(() => {
	const aside = document.getElementById("runs");
	const list = document.createElement("ul");
	const status = document.createElement("p");
	status.id = "status";
	status.setAttribute("role", "status");
	const head = document.createElement("strong");
	head.textContent = "Results, to lay side by side";
	aside.append(head, list, status);
	const left = new Set(); // names that the reader does not want to see

	function showList(items) {
		const focus = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.item : undefined;
		list.replaceChildren(...items.map((item) => {
			const box = document.createElement("input");
			box.type = "checkbox";
			box.checked = !left.has(item.name);
			box.dataset.item = item.name;
			box.addEventListener("change", () => {
				if (box.checked) left.delete(item.name);
				else left.add(item.name);
				load();
			});
			const label = document.createElement("label");
			label.dir = "auto";
			const name = item.name.length > 80 ? item.name.slice(0, 79) + "…" : item.name;
			label.append(box, " " + name + " — " + item.state);
			const li = document.createElement("li");
			li.append(label);
			return li;
		}));
		for (const box of list.querySelectorAll("input")) if (box.dataset.item === focus) box.focus();
	}

	let waiting = false, again = false;
	async function load() {
		if (waiting) {
			again = true;
			return;
		}
		waiting = true;
		try {
			const answer = await fetch("data", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ without: [...left] }) });
			if (!answer.ok) throw new Error(await answer.text());
			const data = await answer.json();
			showList(data.items);
			crepeReport.show(data.document);
			status.textContent = (data.problems || []).concat("as of " + new Date().toLocaleTimeString()).join("; ");
		} catch (e) {
			status.textContent = "not updated: " + e.message;
		}
		waiting = false;
		if (again) {
			again = false;
			load();
		}
	}

	const events = new EventSource("events");
	events.addEventListener("change", load);
	events.addEventListener("error", () => { status.textContent = "the server does not answer; what is shown may be old"; });
	load();
})();
