// Draws one dashboard: the panels of its JSON, with data that was queried before, in components of
// @grafana/ui. It asks nobody for anything. What the library has no component for is the heat map, whose
// cells are drawn here.

import React, { useEffect, useRef } from 'react';
import { createRoot } from 'react-dom/client';
import {
  FieldType,
  ThemeContext,
  createTheme,
  dateTime,
  getDisplayProcessor,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';

import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import 'uplot/dist/uPlot.min.css';

const WIDTH = 1500;
const ROW = 38;
const GAP = 8;
const theme = createTheme({ colors: { mode: 'dark' } });
const { dashboard, results, from, to } = window.scene;
const range = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: 'now-2m', to: 'now' } };

/** The field of one series, as the panel's field configuration wants it shown. */
function field(panel, name, values, index) {
  const { defaults, overrides } = panel.fieldConfig;
  const config = { ...defaults, displayName: name, displayNameFromDS: name };
  for (const override of overrides) {
    if (override.matcher.options === name) {
      for (const property of override.properties) {
        config[property.id] = property.value;
      }
    }
  }
  const made = { name, type: FieldType.number, values, config, state: { seriesIndex: index, displayName: name } };
  made.display = getDisplayProcessor({ field: made, theme, timeZone: 'utc' });
  return made;
}

function frames(panel) {
  return results[panel.id].map((series, index) => {
    const time = { name: 'time', type: FieldType.time, values: series.values.map(([at]) => at * 1000), config: {} };
    time.display = getDisplayProcessor({ field: time, theme, timeZone: 'utc' });
    const values = series.values.map(([, value]) => Number(value));
    return { refId: 'A', name: series.name, length: values.length, fields: [time, field(panel, series.name, values, index)] };
  });
}

function Lines({ panel, width, height }) {
  return (
    <TimeSeries
      frames={frames(panel)}
      structureRev={1}
      timeRange={range}
      timeZone="utc"
      width={width}
      height={height}
      legend={panel.options.legend}
      options={panel.options}
    />
  );
}

function lastOf(series) {
  return Number(series.values[series.values.length - 1][1]);
}

function Numbers({ panel, width, height }) {
  const shown = results[panel.id];
  const part = width / Math.max(shown.length, 1);
  return (
    <div style={{ display: 'flex' }}>
      {shown.map((series, index) => {
        const value = { ...field(panel, series.name, [], index).display(lastOf(series)), title: series.name };
        return (
          <BigValue
            key={series.name}
            theme={theme}
            width={part}
            height={height}
            value={value}
            colorMode={panel.options.colorMode}
            graphMode="none"
            textMode={panel.options.textMode}
            justifyMode="auto"
          />
        );
      })}
    </div>
  );
}

function Bars({ panel, width, height }) {
  const shown = [...results[panel.id]].sort((one, other) => lastOf(other) - lastOf(one));
  const largest = Math.max(...shown.map(lastOf), 1e-9);
  const gap = shown.length > 6 ? 2 : GAP;
  const each = Math.min(panel.options.maxVizHeight, height / shown.length - gap);
  return (
    <div style={{ display: 'flex', flexDirection: 'column', gap }}>
      {shown.map((series, index) => {
        const { config, display } = field(panel, series.name, [], index);
        return (
          <BarGauge
            key={series.name}
            theme={theme}
            width={width}
            height={each}
            field={{ ...config, max: config.max ?? largest }}
            value={{ ...display(lastOf(series)), title: series.name }}
            display={display}
            alignmentFactors={{ title: 'no-privileged', text: '0000' }}
            orientation="horizontal"
            displayMode={panel.options.displayMode}
            showUnfilled
          />
        );
      })}
    </div>
  );
}

/** Cumulative buckets as one row of cells each, the more events the brighter. */
function Heatmap({ panel, width, height }) {
  const canvas = useRef(null);
  useEffect(() => {
    const scale = window.devicePixelRatio;
    const context = canvas.current.getContext('2d');
    context.scale(scale, scale);
    const bound = (series) => (series.name === '+Inf' ? Infinity : Number(series.name));
    const buckets = [...results[panel.id]].sort((one, other) => bound(one) - bound(other));
    const counts = buckets.map((series, row) =>
      series.values.map(([, value], column) => {
        const below = row > 0 ? Number(buckets[row - 1].values[column]?.[1] ?? 0) : 0;
        return Math.max(0, Number(value) - below);
      })
    );
    const left = 64;
    const bottom = 22;
    const rows = buckets.length;
    const columns = counts[0].length;
    const most = Math.max(...counts.flat());
    const cell = { w: (width - left) / columns, h: (height - bottom) / rows };
    context.font = `12px ${theme.typography.fontFamily}`;
    for (let row = 0; row < rows; row++) {
      const y = height - bottom - (row + 1) * cell.h;
      for (let column = 0; column < columns; column++) {
        const share = Math.sqrt(counts[row][column] / most);
        if (share > 0) {
          context.fillStyle = `hsl(${28 - 10 * share}, 90%, ${15 + 55 * share}%)`;
          context.fillRect(left + column * cell.w, y, Math.max(cell.w - 1, 1), cell.h - 1);
        }
      }
      if (row % 3 === 0) {
        context.fillStyle = theme.colors.text.secondary;
        context.textAlign = 'right';
        context.textBaseline = 'middle';
        context.fillText(buckets[row].name + ' s', left - 8, y + cell.h / 2);
      }
    }
    const times = buckets[0].values.map(([at]) => at);
    context.textAlign = 'center';
    context.textBaseline = 'alphabetic';
    for (let part = 1; part < 4; part++) {
      const column = Math.floor((columns * part) / 4);
      const text = dateTime(times[column] * 1000).utc().format('HH:mm:ss');
      context.fillText(text, left + column * cell.w, height - 6);
    }
  }, []);
  const scale = window.devicePixelRatio;
  return <canvas ref={canvas} width={width * scale} height={height * scale} style={{ width, height }} />;
}

const KINDS = { timeseries: Lines, stat: Numbers, bargauge: Bars, heatmap: Heatmap };

function Panel({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const size = { width: (w * WIDTH) / 24 - GAP, height: h * ROW - GAP };
  const place = { position: 'absolute', left: (x * WIDTH) / 24 + GAP / 2, top: y * ROW + GAP / 2, ...size };
  if (panel.type === 'row') {
    return <h4 style={{ ...place, ...theme.typography.h5, margin: 0, padding: '4px 8px' }}>{panel.title}</h4>;
  }
  const Kind = KINDS[panel.type];
  return (
    <div style={place}>
      <PanelChrome title={panel.title} width={size.width} height={size.height} padding="md">
        {(width, height) => <Kind panel={panel} width={width} height={height} />}
      </PanelChrome>
    </div>
  );
}

function Dashboard() {
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles isExtensionDevelopment={false} />
      {dashboard.panels.map((panel) => (
        <Panel key={panel.id} panel={panel} />
      ))}
    </ThemeContext.Provider>
  );
}

document.body.style.cssText = `margin: 0; position: relative; width: ${WIDTH}px; background: ${theme.colors.background.canvas}`;
createRoot(document.getElementById('dashboard')).render(<Dashboard />);
