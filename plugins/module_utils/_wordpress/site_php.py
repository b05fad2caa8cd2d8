# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The PHP programs for one site: all questions in one start of WordPress, and its database.

They come to "wp eval-file -" through standard input, with their job inside: no secret is in a command line or a file.
The answer is one line of JSON behind MARK; other lines are notices of PHP and of plugins.
"""

from __future__ import annotations

MARK = "@@postmeister@@"

#: asks for everything that a site may be wanted to be; sets the options of the job first
ASK = r"""<?php
$ask = static function (array $job): array {
    global $wp_db_version;
    foreach (['plugin', 'theme', 'update', 'plugin-install', 'theme-install', 'translation-install', 'file'] as $file) {
        require_once ABSPATH . "wp-admin/includes/$file.php";
    }
    require ABSPATH . WPINC . '/version.php';
    $troubles = [];
    // Of an address that does not answer by https WordPress asks again without.
    $listen = static function ($response, $context, $class, $arguments, $url) use (&$troubles): void {
        $address = set_url_scheme(strtok($url, '?'), 'https');
        $code = is_wp_error($response) ? 0 : (int) wp_remote_retrieve_response_code($response);
        if ($code < 200 || $code >= 400) {
            $troubles[$address] = is_wp_error($response) ? $response->get_error_message() : "HTTP status $code";
        } else {
            unset($troubles[$address]);
        }
    };
    add_action('http_api_debug', $listen, 10, 5);
    // As the database has them: true is '1', false ''.
    $plain = static fn($value) => is_scalar($value) ? (string) $value : $value;
    $stored = static fn($value) => maybe_serialize($plain($value));
    $options = [];
    foreach ($job['options'] as $name => $wanted) {
        $clean = sanitize_option($name, $wanted);
        if ($job['set']) {
            get_option($name, null) === null ? add_option($name, $clean) : update_option($name, $clean);
        }
        $found = get_option($name, null);
        $options[$name] = [
            'same' => $found !== null && $stored($found) === $stored($clean),
            'found' => $found === null ? null : $plain($found),
        ];
    }
    if ($job['refresh']) {
        wp_version_check([], true);
        wp_update_plugins();
        wp_update_themes();
    }
    $failed = $troubles;
    $plugins = [];
    $new = get_site_transient('update_plugins')->response ?? [];
    foreach (get_plugins() as $file => $data) {
        $slug = dirname($file) === '.' ? basename($file, '.php') : dirname($file);
        $plugins[$slug] ??= [
            'version' => (string) $data['Version'],
            'use' => is_plugin_active_for_network($file)
                ? 'network' : (is_plugin_active($file) ? 'active' : 'inactive'),
            'new' => (string) ($new[$file]->new_version ?? ''),
        ];
    }
    $themes = [];
    $new = get_site_transient('update_themes')->response ?? [];
    foreach (wp_get_themes(['errors' => null]) as $slug => $theme) {
        $themes[$slug] = [
            'version' => (string) $theme->get('Version'),
            'use' => $slug === get_stylesheet() ? 'active' : 'inactive',
            'new' => (string) ($new[$slug]['new_version'] ?? ''),
        ];
    }
    $offers = [];
    foreach (get_site_transient('update_core')->updates ?? [] as $offer) {
        $is_new = version_compare($offer->current, $wp_version, '>');
        if ($is_new && in_array($offer->response, ['upgrade', 'autoupdate'], true)) {
            $offers[] = (string) $offer->current;
        }
    }
    usort($offers, 'version_compare');
    $unknown = [];
    foreach (['plugins' => $plugins, 'themes' => $themes] as $kind => $there) {
        foreach ($job[$kind] as $slug => $version) {
            if (isset($there[$slug]) && ($version === '' || $there[$slug]['version'] === $version)) {
                continue;
            }
            $call = $kind === 'plugins' ? 'plugins_api' : 'themes_api';
            $word = $kind === 'plugins' ? 'plugin_information' : 'theme_information';
            $known = $call($word, ['slug' => $slug, 'fields' => ['versions' => true, 'sections' => false]]);
            if (is_wp_error($known)) {
                $reason = is_string($known->get_error_data()) ? $known->get_error_data() : $known->get_error_message();
                $unknown["$kind.$slug"] = html_entity_decode(wp_strip_all_tags($reason));
                continue;
            }
            $versions = [$known->version => '', '' => ''] + (array) ($known->versions ?? []);
            if (!isset($versions[$version])) {
                $unknown["$kind.$slug"] = "there is no version $version";
            }
        }
    }
    $core = $job['core'];
    return [
        'core' => $wp_version,
        'older' => $core !== '' && version_compare($core, $wp_version, '<'),
        'offers' => $offers,
        'database' => (string) get_option('db_version'),
        'database_new' => (string) $wp_db_version,
        'multisite' => is_multisite(),
        'languages' => get_available_languages(),
        'translations' => array_map(
            static fn($one) => trim("{$one->type} {$one->slug} {$one->language}"),
            $job['refresh'] ? wp_get_translation_updates() : []
        ),
        'plugins' => (object) $plugins,
        'themes' => (object) $themes,
        'options' => (object) $options,
        'unknown' => (object) $unknown,
        'failed' => (object) $failed,
    ];
};
"""

#: makes the database when it is not there; an account that may not is told so by the server
DATABASE = r"""<?php
$ask = static function (array $job): array {
    mysqli_report(MYSQLI_REPORT_OFF);
    [$host, $port, $socket] = [$job['host'], null, null];
    if (preg_match('#^(.*?):(?:(\d+)|(/.*))$#', $host, $part)) {
        [$host, $port, $socket] = [$part[1] ?: 'localhost', ($part[2] ?? '') ? (int) $part[2] : null, $part[3] ?? null];
    }
    $link = mysqli_init();
    if (!@mysqli_real_connect($link, $host, $job['user'], $job['password'], null, $port, $socket)) {
        return ['error' => mysqli_connect_error()];
    }
    $name = '`' . str_replace('`', '``', $job['name']) . '`';
    if (@mysqli_select_db($link, $job['name'])) {
        return ['created' => false];
    }
    if ($job['create'] && !mysqli_query($link, "CREATE DATABASE $name CHARACTER SET utf8mb4")) {
        return ['error' => mysqli_error($link)];
    }
    return ['created' => true];
};
"""

#: the end of each
ANSWER = r"""
$job = json_decode(base64_decode('{job}'), true, 64, JSON_THROW_ON_ERROR);
echo "\n{mark}", json_encode($ask($job), JSON_INVALID_UTF8_SUBSTITUTE | JSON_THROW_ON_ERROR), "\n";
"""
